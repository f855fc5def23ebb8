"""The loop on Ray Serve: the only place that knows Ray and HTTP."""
