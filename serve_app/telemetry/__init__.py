"""What the running system tells of itself: figures, traces, logs. Nothing here alters an answer.

`counting` sees the requests; `ray_metrics` hands what was counted to Ray, and so to Prometheus;
`spans` and `tracing` follow one request, or one turn of a writer; `logs` is text or JSON; `page`
writes `docs/metrics.md`.
"""
