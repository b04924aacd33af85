"""The route that scripts/bench measures beside its floor: `--api scripts.bench_api:api`."""

from handlers.api import Api

api = Api()


@api.get("/json")
def hello() -> dict[str, str]:
    return {"message": "Hello, World!"}
