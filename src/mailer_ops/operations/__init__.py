"""What operators do: dead letters, erasure, replay, and who is in trouble."""
