"""What is reached inside a guest, or heard from it: the serial console and the channels for commands."""
