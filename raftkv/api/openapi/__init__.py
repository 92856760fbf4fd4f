"""The API described as an OpenAPI 3.1 document, generated from the routes.

Rules:

- Each route of the REST server has an operation here, and each operation a route: ``document`` raises
  where one lacks the other.
- What is said of a request is what the server accepts, no more and no less: ``tests/api/test_openapi.py``
  asks it for all its query parameters. An error names each of its ``code``s.
- Nobody imports this package but who is asked for ``/openapi.json``.
"""

from raftkv.api.openapi.documents import document, encoded_document

__all__ = ["document", "encoded_document"]
