"""What runs under Ray Serve: the HTTP ingress and the embedded speech engine."""
