"""The methods: algorithms that adapt, each one file and one line here."""

METHODS = {
    "tfidf": "guidebook.methods.tfidf:Tfidf",
    "linear_probe": "guidebook.methods.linear_probe:LinearProbe",
    "source_only": "guidebook.methods.source_only:SourceOnly",
    "target_mlm": "guidebook.methods.target_mlm:TargetMLM",
    "general_mlm": "guidebook.methods.general_mlm:GeneralMLM",
    "domain_fusion": "guidebook.methods.domain_fusion:DomainFusion",
    "target_oracle": "guidebook.methods.target_oracle:TargetOracle",
}
