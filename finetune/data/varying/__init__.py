"""How training images are varied: settings, the steps that timm does not have, and both in words."""
