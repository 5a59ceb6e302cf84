"""Ray, and nothing but Ray: plain classes of the layers below become actors and tasks here.

No other package of ``tts_actors`` imports ray; nothing here imports ``ray.serve``, so that job actors and chunk workers
start without it (0.5 s of CPU instead of 1.1 s, 50 MB instead of 84 MB).
"""

from tts_actors.cluster.gateway import Gateway, stop_directory
from tts_actors.cluster.metrics import record_with_ray
from tts_actors.cluster.names import DIRECTORY, NAMESPACE

__all__ = ["DIRECTORY", "NAMESPACE", "Gateway", "record_with_ray", "stop_directory"]
