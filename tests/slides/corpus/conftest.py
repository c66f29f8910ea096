from ..wsi.conftest import reference_slides

__all__ = ["reference_slides"]
