"""How large a deployment is and what it needs: model files, serving flags, HCCL_BUFFSIZE. No torch."""
