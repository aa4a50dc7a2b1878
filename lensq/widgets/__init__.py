"""The candidate inspector: labels by eye, a gallery to give them in, a threshold to move."""
