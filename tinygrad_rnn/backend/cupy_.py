def status(): raise NotImplementedError
def connect(): raise NotImplementedError
