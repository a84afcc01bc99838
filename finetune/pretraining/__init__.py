"""Training without labels: a masked autoencoder that goes on from the weights a vision transformer has."""
