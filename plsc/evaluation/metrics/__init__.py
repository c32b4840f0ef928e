"""The metrics of PLSC, by name. A new file here is found without being named anywhere."""
