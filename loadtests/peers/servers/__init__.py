"""What a user would pick instead: one file each, as its own documentation shows it."""
