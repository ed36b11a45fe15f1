"""The pool's server: who has which memory, in how many copies, for how long."""
