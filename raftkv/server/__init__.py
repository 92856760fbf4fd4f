"""The server: the asyncio loop round a replica, its disk and its links, as a process."""
