"""Networks: a timm backbone, its weights, its layers and a head."""
