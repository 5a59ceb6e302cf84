"""Ray, and nothing but Ray: plain classes of the layers below become actors and tasks here.

No other package of ``tts_actors`` imports ray. Nothing here imports ``ray.serve``, so that job actors and chunk workers
start without it (0.5 s of CPU instead of 1.1 s, 50 MB instead of 84 MB); and this file imports nothing at all, so that
each process has only what it works with.
"""
