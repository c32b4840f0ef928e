"""`plsc doctor`: what is checked of a machine and of its ranks, a check per module. See plsc.engine.doctor.findings."""
