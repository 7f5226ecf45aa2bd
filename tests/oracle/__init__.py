# SPDX-License-Identifier: Apache-2.0

"""What a filter is compared with: another one that people have had for years.

worlds.py makes random ports and groups, frames.py what they send; driver.py
gives both to Neutron's own driver for iptables, which runs in firewall.py;
judge.py sends each frame on two hosts and sees where it comes out.
"""
