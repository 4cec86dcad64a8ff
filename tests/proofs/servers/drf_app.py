"""Django REST Framework with its three paginations, behind OAuth2: `python drf_app.py PORT FOLDER`."""

import sys
from pathlib import Path

import django
from django.conf import settings

PORT, FOLDER = int(sys.argv[1]), Path(sys.argv[2])

settings.configure(
    ALLOWED_HOSTS=["*"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": FOLDER / "drf.db"}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "oauth2_provider", "rest_framework"],
    OAUTH2_PROVIDER={"SCOPES": {"read": "read", "write": "write"}},
    ROOT_URLCONF=__name__,
    SECRET_KEY="only on loopback, only for this run",
    USE_TZ=True,
)
django.setup()

from django.core.management import call_command  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.db import connection, models  # noqa: E402
from django.urls import include, path  # noqa: E402
from oauth2_provider.contrib.rest_framework import OAuth2Authentication, TokenHasReadWriteScope  # noqa: E402
from oauth2_provider.models import Application  # noqa: E402
from rest_framework import pagination, routers, serializers, viewsets  # noqa: E402
from waitress import serve  # noqa: E402


class Thing(models.Model):
    """One row."""

    name = models.CharField(max_length=100)
    amount = models.DecimalField(max_digits=10, decimal_places=2)

    class Meta:
        app_label = "things"


class ThingSerializer(serializers.ModelSerializer):
    """A row as JSON."""

    class Meta:
        model = Thing
        fields = ("id", "name", "amount")


class Numbered(pagination.PageNumberPagination):
    """`?page=2`, a total and a next URL in the body; 404 after the last page."""

    page_size = 25


class Offset(pagination.LimitOffsetPagination):
    """`?offset=25&limit=25`, capped at 25."""

    default_limit = max_limit = 25


class Cursor(pagination.CursorPagination):
    """An opaque next URL."""

    page_size = 25
    ordering = "id"


def viewset(paginator: type) -> type:
    """The same rows, cut in another way."""
    return type(
        f"Things{paginator.__name__}",
        (viewsets.ModelViewSet,),
        {
            "authentication_classes": [OAuth2Authentication],
            "pagination_class": paginator,
            "permission_classes": [TokenHasReadWriteScope],
            "queryset": Thing.objects.order_by("id"),
            "required_scopes": [],
            "serializer_class": ThingSerializer,
        },
    )


router = routers.SimpleRouter()
for name, paginator in (("numbered", Numbered), ("offset", Offset), ("cursor", Cursor)):
    router.register(name, viewset(paginator), basename=name)
urlpatterns = [
    path("o/", include("oauth2_provider.urls", namespace="oauth2_provider")),
    path("api/", include(router.urls)),
]

if __name__ == "__main__":
    call_command("migrate", verbosity=0)
    with connection.schema_editor() as editor:
        editor.create_model(Thing)
    Application.objects.create(
        name="poller",
        client_id="poller",
        client_secret="hush",
        client_type=Application.CLIENT_CONFIDENTIAL,
        authorization_grant_type=Application.GRANT_CLIENT_CREDENTIALS,
    )
    Thing.objects.bulk_create(Thing(name=f"thing {n}", amount=n) for n in range(130))
    serve(get_wsgi_application(), listen=f"127.0.0.1:{PORT}")
