"""MCTP, which carries management messages: packets, the control protocol, the header of CXL's messages, and how
packets travel over TCP, a serial line and I2C (DSP0236, DSP0253, DSP0237)."""
