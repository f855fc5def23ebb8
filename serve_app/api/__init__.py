"""Everything beside the hot path, in FastAPI: reads, operations, sessions, and what describes them.

`operators` is the application; `metrics`, `versions` and `sessions` add their routes to it.
`openapi` tells all routes of the service as one document, with the schemas of `replies` and the
examples that `examples` adds.
"""
