"""SQLAlchemy 2: a type that encrypts what is written and decrypts what is read, and a table with an encrypting trigger."""

from sqlalchemy import FetchedValue, LargeBinary, Text, create_engine, func, literal, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, column_property, mapped_column
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


class Person(Base):
    """The trigger encrypts ssn into ssn_enc. ssn_clear reads it; the aad of the trigger binds it to its row."""

    __tablename__ = "person"
    id: Mapped[int] = mapped_column(primary_key=True, server_default=FetchedValue())
    name: Mapped[str | None]
    # The trigger makes it NULL: read it again after each write.
    ssn: Mapped[str | None] = mapped_column(server_onupdate=FetchedValue())
    ssn_enc: Mapped[bytes | None] = mapped_column(server_default=FetchedValue(), server_onupdate=FetchedValue())


Person.ssn_clear = column_property(func.env_decrypt(Person.ssn_enc, literal("person.ssn:").concat(Person.id), type_=Text))

# Without hide_parameters the message of an error has the plaintext.
engine = create_engine("postgresql+psycopg://", hide_parameters=True)
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

with Session(engine) as session:
    try:
        session.add(Patient(id=1, diagnosis="asthma"))
        session.commit()
        raise AssertionError("two rows have one id")
    except IntegrityError as error:
        assert "asthma" not in str(error)

with Session(engine) as session:
    person = Person(name="Ada", ssn="078-05-1120")
    session.add(person)
    session.commit()
    session.refresh(person)
    assert (person.ssn, person.ssn_clear) == (None, "078-05-1120")
    person.name = "Ada Lovelace"
    session.commit()
    assert (person.ssn, person.ssn_clear) == (None, "078-05-1120")
