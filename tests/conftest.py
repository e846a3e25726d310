"""For all tests: a property has no deadline, which a busy machine would miss."""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
