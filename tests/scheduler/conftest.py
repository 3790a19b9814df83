"""A store on a real file, as the tests of the store have it."""

from tests.store.conftest import bench, home

__all__ = ["bench", "home"]
