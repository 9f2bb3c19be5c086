"""SQLAlchemy 2: a type that encrypts what is written and decrypts what is read."""

from sqlalchemy import LargeBinary, Text, create_engine, func, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.types import TypeDecorator


class Encrypted(TypeDecorator):
    """A bytea column with encrypted values of `plaintext`: Text, JSONB or LargeBinary."""

    cache_ok = True
    FUNCTIONS = {
        Text: ("env_encrypt", "env_decrypt"),
        JSONB: ("env_encrypt_jsonb", "env_decrypt_jsonb"),
        LargeBinary: ("env_encrypt_bytea", "env_decrypt_bytea"),
    }
    impl = Text

    def __init__(self, key_id, plaintext=Text):
        super().__init__()
        self.key_id, self.plaintext = key_id, plaintext

    def load_dialect_impl(self, dialect):
        return dialect.type_descriptor(self.plaintext(none_as_null=True) if self.plaintext is JSONB else self.plaintext())

    def bind_expression(self, bindvalue):
        return getattr(func, self.FUNCTIONS[self.plaintext][0])(bindvalue, self.key_id)

    def column_expression(self, column):
        return getattr(func, self.FUNCTIONS[self.plaintext][1])(column, type_=self)


class Base(DeclarativeBase):
    pass


class Patient(Base):
    __tablename__ = "patient"
    id: Mapped[int] = mapped_column(primary_key=True)
    diagnosis: Mapped[str | None] = mapped_column(Encrypted("alias/patients"))
    record: Mapped[dict | None] = mapped_column(Encrypted("alias/patients", JSONB))
    photo: Mapped[bytes | None] = mapped_column(Encrypted("alias/patients", LargeBinary))


engine = create_engine("postgresql+psycopg://")
with Session(engine) as session:
    rows = [(1, "asthma", {"since": 2019}, b"\xff\xd8"), (2, "", None, b""), (3, None, {"a": [1, None]}, None)]
    session.add_all(Patient(id=i, diagnosis=d, record=r, photo=p) for i, d, r, p in rows)
    session.commit()
    read = session.scalars(select(Patient).order_by(Patient.id)).all()
    assert [(p.id, p.diagnosis, p.record, p.photo) for p in read] == rows
    read[0].diagnosis = "asthma, mild"
    session.commit()
    # A condition on the plaintext decrypts each row.
    found = session.scalars(select(Patient).where(func.env_decrypt(Patient.__table__.c.diagnosis, type_=Text) == "asthma, mild"))
    assert [patient.id for patient in found] == [1]
