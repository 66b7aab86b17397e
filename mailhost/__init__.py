"""The Django project: configuration, and what runs the parts together."""
