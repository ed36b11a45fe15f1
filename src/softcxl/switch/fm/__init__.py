"""The fabric manager API of a switch: its command sets, and the command interface that has them all."""
