"""What happens in the simulated world, a file for each subject.

Each happening is a function of the world and of its own randomness. `register` says how one is
drawn, `plan` draws what happens in a seed, `healing` ends it all.
"""
