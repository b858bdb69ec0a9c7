"""The ops as Triton kernels, under the contract of the reference. Imports no Triton itself."""
