"""Self-supervised pretraining: a masked autoencoder that starts from the weights a vision transformer has."""
