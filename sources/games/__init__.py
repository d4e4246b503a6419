"""Games: inputs, state and events of matches."""
