"""What messages are made of: foreign text made safe to look at, long lists cut short, passwords masked."""
