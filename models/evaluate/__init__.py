"""How good a bundle is: its answers on public test sets, beside simple baselines."""
