"""edge-node: a hospital-side DICOM edge node."""

__version__ = "0.1.0"
