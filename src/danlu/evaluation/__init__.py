"""The proof: is the tuned model better than the base, by how much, how sure, and what did it forget?"""
