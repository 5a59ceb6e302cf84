"""Adapters of the store seams: SQL for jobs, object storage for clips.

Nothing is imported here: a job actor needs neither the clips' nor the migrations' libraries, and starts sooner without.
"""
