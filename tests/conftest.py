"""What must hold before anything imports Ray, in whatever order the tests are collected."""

import os

os.environ.setdefault("RAY_AUTH_MODE", "token")  # the service's Ray wants its token from those who join it
