"""Torch modules that training and export share; serving never imports them."""
