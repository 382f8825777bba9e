"""The implicit video representation V_s = C(D(H(x, y, n)))."""
