class HibariEngine:
    def __init__(self, max_characters=1):
        pass


def build_engine_api(e):
    pass
