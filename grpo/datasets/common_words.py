"""Common English words of three letters or more, for tasks that need some with nothing downloaded."""
WORDS = """
able about above across actor after again age agree air alive all allow almost alone along also always among amount
anchor ancient angry animal answer apple arrive ask aunt author autumn away baby back bad badge bake ball balloon
banana band bank barn base basket bath beach bean bear beautiful because become before begin behind believe bell
below belt bench bend best better between beyond bicycle big bird birthday bite black blanket blind block blood blow
blue board boat body bone book boot border borrow both bottle bottom bowl box boy branch brave bread break breakfast
breath brick bridge bright bring broad brother brown brush bucket build burn bus bush busy but butter button buy
cabin cage cake call calm camera camp can candle cap captain car card care careful carpet carry cart castle cat
catch cattle caught cause cave center century chain chair chalk chance change cheap check cheese cherry chest
chicken chief child choose church circle city class clay clean clear clever climb clock close cloth cloud coach coal
coast coat coffee coin cold collect color comb come common cook cool copper copy corn corner cost cotton cough count
country courage cousin cover cow crane crew cross crowd crown cry cup curtain custom cut daily damp dance danger
dark daughter day dead dear decide deep deer desert desk detail dig dinner dirty dish distance doctor dog donkey
door double doubt down dozen draw dream dress drink drive drop drum dry duck dust duty eager eagle ear early earn
earth east easy eat edge egg eight either elbow electric elephant empty end enemy engine enjoy enough enter equal
escape even evening event every exact example except excuse expect eye face fact fair fall false family famous far
farm farmer fast father favor fear feather feed feel fence festival few field fight fill film find finger finish
fire firm first fish five flag flame flat flight float flood floor flour flower fly follow food foot forest forget
fork form forward found fountain four fox frame free fresh friend frog from front frost fruit full funny future game
garden gate gather gentle giant gift girl give glad glass glove goat gold good goose grain grand grape grass gray
great green ground group grow guard guess guest guide guitar hair half hall hammer hand handle happen happy harbor
hard harvest hat have hay head health hear heart heat heavy hedge height hello help hen here hide high hill history
hold hole holiday hollow home honest honey hope horse hospital hot hotel hour house how hundred hungry hunt hurry
ice idea image important inch indeed insect inside iron island jacket jam jar jewel job join joke journey joy judge
juice jump just keep kettle key kick kind king kitchen kite knee knife knock know labor ladder lady lake lamb lamp
land language large last late laugh law lazy leaf learn leather leave left leg lemon lend lesson letter level
library lid life lift light like line lion lip list listen little live load local lock log lonely long look loose
lose lost loud love low luck lunch machine magic mail make man many map march mark market marry match matter meadow
meal mean measure meat medicine meet melon melt member memory mend message metal middle might mile milk mill mind
minute mirror miss mistake mix model modern moment money monkey month moon morning most mother motor mountain mouse
mouth move much mud muscle museum music must nail name narrow nation nature near neat neck need needle neighbor
nephew nest never new news next nice night nine noble noise noon north nose note nothing notice now number nurse nut
oak obey object ocean offer office often oil old olive once onion only open orange orchard order other our oven over
owl own package page pain paint pair palace pale pan paper parcel parent park part party pass past path pattern pay
peace peach pear pen pencil people pepper perfect perhaps person phone photo piano picture piece pig pillow pilot
pin pink pipe place plain plan planet plant plate play please plenty plow pocket poem point polite pond poor popular
port possible post pot potato powder power practice prepare present pretty price prince print prison prize problem
promise proud pull pump pupil pure purple purpose purse push puzzle quality quarter queen question quick quiet quite
rabbit race radio rail rain raise ranch rapid rare rather raw reach read ready real reason record red regular remain
remember repair repeat reply report rest return ribbon rice rich ride right ring ripe rise river road roast rob rock
roll roof room root rope rose rough round row royal rub rule run rush sad saddle safe sail salt same sand sandwich
save say scale school science scissors sea season seat second secret see sell send sentence separate serious serve
seven several shade shadow shake shape share sharp sheep sheet shelf shell shine ship shirt shoe shop shore short
shoulder shout show shut sick side sign silence silk silver simple since sing sister sit six size skill skin skirt
sky sleep slide slow small smart smell smile smoke smooth snake snow soap social sock soft soil soldier solid some
song soon sort sound soup south space spade speak special speed spell spend spoon sport spot spread spring square
squirrel stable stage stair stamp stand star start station stay steady steal steam steel steep step stick still
stomach stone stop store storm story stove straight strange straw stream street string strong student study sugar
suit summer sun supper sure surprise sweep sweet swim table tail tailor take talk tall tame taste taxi tea teach
team tear tell ten tent test thank their thick thief thin thing think third thirsty thread three throat through
throw thumb thunder ticket tide tidy tiger tight time tin tiny tired title toast today toe together tomato tongue
tool tooth top total touch tour towel tower town toy track trade train travel tray treasure tree trip trouble truck
true trunk trust truth try tube tune tunnel turn twelve twenty twice two umbrella uncle under useful usual valley
value vase vegetable very village violin visit voice wage wagon waist wait wake walk wall want war warm wash waste
watch water wave way weak wealth wear weather wedding week weight welcome well west wet whale wheat wheel when where
which while whisper whistle white who whole wide wife wild will win wind window wine wing winter wire wise wish with
wolf woman wonder wood wool word work world worm worry worth wound write wrong yard year yellow yes yesterday young
zebra zero zoo
""".split()
