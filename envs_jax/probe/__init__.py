"""Small environments with known values: what does a learner see, and what not?"""
