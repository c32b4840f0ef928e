"""The room that knows ranks: who this process is, which class lives where, what the ranks tell each other."""
