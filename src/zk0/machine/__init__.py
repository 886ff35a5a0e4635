"""What this machine is: its processor, memory and graphics card, the packages installed, the code's revision."""
