"""From a trained checkpoint to a bundle: graphs, parity with the checkpoint, int8, manifest and model card."""
