"""What is known to be wrong with the public CAMELYON slides. Names as the releases use them, without ending.

Sources: the description that comes with the CAMELYON16 release (a copy in DIDSR/dldp,
dldp/utils/Camelyon16_dataset_description.md, version 0.4), baidu-research/NCRF (README), and
DeepMicroscopy/AdaptiveRegionSelection (code/user_define.py) for the black background.
"""

PARTLY_ANNOTATED = frozenset(
    f"tumor_{number:03d}"
    for number in (10, 15, 18, 20, 25, 29, 33, 34, 44, 46, 51, 54, 55, 56, 67, 79, 85, 92, 95, 110)
)
"""Not every metastasis is outlined (079: blurred tumour is not; 092: blurred tumour on adjacent tissue): nothing outside the
outlines is normal for sure, so nothing there is learnt from."""

EXCLUDED = {
    "normal_086": "it holds tumour and was renamed tumor_111",
    "normal_144": "its background is black, so that glass passes for tissue",
    "test_049": "a duplicate, removed from the release",
    "test_114": "not every metastasis is outlined; left out of the lesion task by the release",
}

LITTLE_TISSUE = frozenset({"normal_027", "normal_045"})
