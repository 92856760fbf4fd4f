from raftkv.errors import Outcome as Outcome
from raftkv.errors import RaftkvError as RaftkvError
from raftkv.sdk.client import AsyncClient as AsyncClient
from raftkv.sdk.errors import LeaseLost as LeaseLost
from raftkv.sdk.errors import LockLost as LockLost
from raftkv.sdk.errors import Unreachable as Unreachable
from raftkv.sdk.operations import CreateRevision as CreateRevision
from raftkv.sdk.operations import Delete as Delete
from raftkv.sdk.operations import DeleteRange as DeleteRange
from raftkv.sdk.operations import Get as Get
from raftkv.sdk.operations import GetRange as GetRange
from raftkv.sdk.operations import Increment as Increment
from raftkv.sdk.operations import LeaseOf as LeaseOf
from raftkv.sdk.operations import ModRevision as ModRevision
from raftkv.sdk.operations import Put as Put
from raftkv.sdk.operations import Txn as Txn
from raftkv.sdk.operations import Value as Value
from raftkv.sdk.operations import Version as Version
from raftkv.sdk.operations import absent as absent
from raftkv.sdk.operations import exists as exists
from raftkv.sdk.results import Event as Event
from raftkv.sdk.results import Instance as Instance
from raftkv.sdk.results import Item as Item
from raftkv.sdk.sync import Client as Client

__version__: str
