"""Images that are decoded and augmented on the device that trains."""
