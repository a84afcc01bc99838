"""What a network is shown in training and in evaluation, as a page, before anything is trained."""
