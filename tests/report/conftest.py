"""The bench of the verification's tests serves here, too."""

from tests.verify.conftest import bench

__all__ = ["bench"]
